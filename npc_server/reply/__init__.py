"""PURE. A stream of text pieces -> speech, sentences, emotion, gestures."""
