"""Pure functions from RunResult(s) to Markdown and plots."""
