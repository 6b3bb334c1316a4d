"""Manifests in their four formats, and what is said of each fault."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from topwork.data.dataset import Example, FileImage, Problem
from topwork.data.sources import load
from topwork.errors import InputError, MissingExtra


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "sub/c, d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


TABLE = [
    {"path": "b.jpg", "label": "3", "split": "val", "group": "g", "weight": "0.25"},
    {"path": "a.jpg", "label": "cat", "split": "TRAIN", "group": "", "weight": ""},
    {"path": "sub/c, d.jpg", "label": 'a "b"', "split": "test", "group": "7", "weight": "2"},
]


def expected(folder: Path) -> tuple[Example, ...]:
    return (
        Example("b.jpg", FileImage(str(folder / "b.jpg")), "3", "g", 0.25, "validation"),
        Example("a.jpg", FileImage(str(folder / "a.jpg")), "cat", None, 1.0, "train"),
        Example("sub/c, d.jpg", FileImage(str(folder / "sub/c, d.jpg")), 'a "b"', "7", 2.0, "test"),
    )


def test_csv_with_bom_crlf_quotes_and_blank_lines(photos):
    text = (
        "\ufeffPath, Label,split,group,weight,extra\r\n"
        "b.jpg, 3,val,g,0.25,ignored\r\n"
        "\r\n"
        "./a.jpg,cat,TRAIN\r\n"
        ",,,,,\r\n"
        '"sub/c, d.jpg", "a ""b""",test,7,2,\r\n'
    )
    d = load(write(photos, "list.csv", text))
    assert d.examples == expected(photos)
    assert d.classes == ("3", 'a "b"', "cat")
    assert d.name == str(photos / "list.csv")


def test_tsv_keeps_commas(photos):
    lines = ["\t".join(TABLE[0])] + ["\t".join(row.values()) for row in TABLE]
    lines[3] = lines[3].replace('a "b"', '"a ""b"""')
    d = load(write(photos, "list.TSV", "\n".join(lines)))
    assert d.examples == expected(photos)


def test_jsonl_numbers_become_text(photos):
    rows = [dict(row) for row in TABLE]
    rows[0] |= {"label": 3, "weight": 0.25}
    rows[1] |= {"group": None, "weight": None}
    rows[2] |= {"group": 7, "weight": 2, "extra": [1]}
    text = "\n\n".join(map(json.dumps, rows)) + "\r\n"
    assert load(write(photos, "list.jsonl", text)).examples == expected(photos)


def test_json_labels_of_true_and_false(photos):
    text = '{"path": "a.jpg", "label": true}\n{"path": "b.jpg", "label": false}'
    assert load(write(photos, "list.jsonl", text)).labels() == ["true", "false"]


def test_parquet(photos):
    columns = {
        "path": ["b.jpg", "a.jpg", "sub/c, d.jpg"],
        "label": pa.array(["3", "cat", 'a "b"']).dictionary_encode(),
        "split": ["val", "train", "test"],
        "group": ["g", None, "7"],
        "weight": [0.25, None, 2.0],
        "extra": [1, 2, 3],
    }
    pq.write_table(pa.table(columns), photos / "list.parquet")
    assert load(photos / "list.parquet").examples == expected(photos)
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "label": [0, 1]}), photos / "numbers.parquet")
    assert load(photos / "numbers.parquet").labels() == ["0", "1"]


def test_missing_files_are_listed_and_order_is_kept(photos):
    d = load(write(photos, "list.csv", "path,label\nnone.jpg,x\nb.jpg,y\nsub,y\na.jpg,x\n"))
    assert [e.id for e in d] == ["b.jpg", "a.jpg"]
    name = photos / "list.csv"
    assert d.skipped == (
        Problem("none.jpg", f"no such file ({name}, line 2)"),
        Problem("sub", f"no such file ({name}, line 4)"),
    )


def test_paths_of_other_places_and_other_systems(photos):
    inner = photos / "lists"
    inner.mkdir()
    text = f"path,label\n../a.jpg,x\n{photos}/b.jpg,y\n..\\sub\\c|,x\n"
    (photos / "sub/c").write_bytes(b"no ending is needed where a file is named")
    d = load(write(inner, "list.csv", text.replace("|", "")))
    assert [e.id for e in d] == ["../a.jpg", f"{photos}/b.jpg", "../sub/c"]
    absolute = f"path,label\n{photos}/a.jpg,x\nb.jpg,y\n"
    assert [e.id for e in load(write(photos, "list.csv", absolute))] == ["a.jpg", "b.jpg"]


def test_ids_do_not_depend_on_where_it_is_named_from(photos, monkeypatch):
    monkeypatch.chdir(photos)
    write(photos, "list.csv", f"path,label\n{photos}/a.jpg,x\nb.jpg,y\n")
    assert [e.id for e in load("list.csv")] == ["a.jpg", "b.jpg"]


OK = '{"path": "a.jpg", "label": "x"}\n'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "filename,label\n", "m.csv: expected the columns path and label; got 'filename', 'label': "
         "rename 'filename' to 'path'"),
        ("m.csv", "path,lable,x\n", "got 'path', 'lable', 'x': rename 'lable' to 'label'"),
        ("m.csv", "path,x\n", "got 'path', 'x': 'label' is missing"),
        ("m.csv", "path;label\na;b\n", "got 'path;label': its delimiter seems to be ';', expected a comma"),
        ("m.csv", "", "m.csv: expected the columns path and label; got none"),
        ("m.csv", "path,label,Label\n", "m.csv: there are two columns 'label': rename one"),
        ("m.csv", "path,label\n", "m.csv lists no images: expected one row per image, with path and label"),
        ("m.csv", "path,label\na.jpg,x\n\nb.jpg,\n", "m.csv, line 4: expected a label for 'b.jpg'; got none"),
        ("m.csv", "path,label\n,x\n", "m.csv, line 2: expected the path of an image; got ''"),
        ("m.csv", "path,label\na.jpg,x,y\n", "line 2: expected 2 cells as in the header; got 3: put values"),
        ("m.csv", 'path,label\n"a.jpg,x\n', "m.csv, line 2: not well-formed: unexpected end of data"),
        ("m.csv", b"path,label\na.jpg,caf\xe9\n", "line 2: expected text in UTF-8; got byte 0xe9: save it"),
        ("m.csv", "path,label\na.jpg,x\nb.jpg,y\n./a.jpg,x\n", "lists './a.jpg' twice, in line 2 and line 4"),
        ("m.csv", "path,label,weight\na.jpg,x,1\nb.jpg,y,-1\n", "m.csv, line 3: weight must be a finite "
         "number above 0; got '-1'"),
        ("m.csv", "path,label,weight\na.jpg,x,heavy\n", "a finite number above 0; got 'heavy'"),
        ("m.csv", "path,label,weight\na.jpg,x,inf\n", "line 2: weight must be a finite number above 0"),
        ("m.csv", "path,label,split\na.jpg,x,tran\n", "line 2: unknown split 'tran'; did you mean 'train'?"),
        ("m.csv", "path,label\na.jpg,x\nb.jpg,x\n", "m.csv; got only 'x'"),
        ("m.csv", "path,label\nq.jpg,x\nr.jpg,x\n", "none of the 2 files that "),
        ("m.jsonl", OK + "{", "m.jsonl, line 2: not JSON: "),
        ("m.jsonl", OK + "[1]", 'm.jsonl, line 2: expected an object such as {"path": …}; got [1]'),
        ("m.jsonl", OK + '{"path": "b.jpg"}', "line 2: expected the columns path and label; got 'path'"),
        ("m.jsonl", OK + '{"path": "b.jpg", "label": 1.5}', "label must be text or a whole number; got 1.5"),
        ("m.jsonl", OK + '{"path": 3, "label": "y"}', "line 2: expected the path of an image; got 3"),
        ("m.jsonl", '{"path": "a.jpg", "label": "x", "weight": true}', "finite number above 0; got True"),
        ("m.jsonl", '{"path": "a.jpg", "label": "x", "weight": NaN}', "above 0; got nan"),
        ("m.parquet", "text", "m.parquet is not a readable Parquet file: "),
    ],
)  # fmt: skip
def test_faults_are_named_with_their_line(photos, name, text, message):
    path = write(photos, name, text)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_parquet_grouped_by_another_column(photos):
    columns = {"path": ["a.jpg", "b.jpg"], "label": ["x", "y"], "Patient": [7, 8], "pixels": [b"1", b"2"]}
    pq.write_table(pa.table(columns), photos / "list.parquet")
    assert [example.group for example in load(photos / "list.parquet", group_by="patient")] == ["7", "8"]
    with pytest.raises(InputError, match="unknown column to group by 'patients'; did you mean 'patient'"):
        load(photos / "list.parquet", group_by="patients")


def test_parquet_without_a_column(photos):
    pq.write_table(pa.table({"path": ["a.jpg"], "class": ["x"]}), photos / "list.parquet")
    with pytest.raises(InputError, match="got 'path', 'class': rename 'class' to 'label'"):
        load(photos / "list.parquet")


def test_parquet_without_its_reader(photos, monkeypatch):
    path = write(photos, "list.parquet", "")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'Parquet manifest needs .* "topwork\[parquet\]"'):
        load(path)
