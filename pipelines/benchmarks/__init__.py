"""What is measured, its result files, and the tables that documents show of them."""
