"""What is wrong with the data: copies, doubtful labels, odd pictures. Read `findings` first."""
