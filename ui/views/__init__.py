"""What the page shows of one snapshot of a workspace; each says what is missing where there is nothing yet.

Not named ``pages``: Streamlit would run the files of a folder of that name as pages of their own.
"""
