"""The addresses; /deepgram is none of them, for the receiver stands in front of Django."""

from django.urls import path

from recordings.views import index, submit

urlpatterns = [path("", index, name="index"), path("submit", submit, name="submit")]
