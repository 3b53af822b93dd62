"""What is kept."""

from django.db import models


class Recording(models.Model):
    """A recording, and what was said in it once Deepgram has called back."""

    name = models.CharField(max_length=200)
    request_id = models.CharField(max_length=100, null=True, unique=True)
    text = models.TextField(null=True)

    class Meta:
        ordering = ("-id",)
