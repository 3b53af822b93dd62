"""Receives Deepgram's callbacks: stored before they are acknowledged, handled once, typed."""
