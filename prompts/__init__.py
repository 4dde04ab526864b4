"""Class books: versioned class descriptions, drafted and refined with language models."""
