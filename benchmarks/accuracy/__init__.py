"""How often a classifier, or what it says about itself, is right. Read `elpv_frozen` first."""
