"""The pages of the app, one module each.

This folder is not called pages: beside app.py Streamlit would take that name for its older kind of multipage app, and
whoever opens a page by its address first after a start would get an empty one.
"""
