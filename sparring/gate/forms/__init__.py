"""A decision's forms for people and CI systems: terminal text, Markdown, JUnit XML. Pure: a Decision in, text out."""

from sparring.gate.forms.junit import junit
from sparring.gate.forms.markdown import markdown
from sparring.gate.forms.terminal import terminal

__all__ = ["junit", "markdown", "terminal"]
