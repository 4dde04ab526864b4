"""Streamlit pages of a workspace: rounds, expert use and an image gallery."""
