"""Streamlit: one place to see and steer all of it."""
