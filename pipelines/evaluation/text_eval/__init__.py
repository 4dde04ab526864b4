"""What a class book does to the detector that reads it: a book against another, and against controls."""
