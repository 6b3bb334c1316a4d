"""What may be wrong with a data set: copies, labels, pictures; found, told, and left to a person to mend."""
