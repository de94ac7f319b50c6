"""The app. It stands on MLflow and Streamlit: it asks the registry for the champion, and imports nothing of stages/."""
