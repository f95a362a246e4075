"""Pictures: numbers in, HTML or Plotly figures out; no gradio, no torch. One file a tab, `base` for what they share."""
