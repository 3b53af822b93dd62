"""The whole: Django, with the receiver in front of it."""

import os

from django.core.wsgi import get_wsgi_application

from dgreceiver import WSGICallbackMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django = get_wsgi_application()

from recordings.callbacks import receiver  # noqa: E402 - its handlers need the models, and these a Django set up

application = WSGICallbackMiddleware(django, receiver=receiver, path="/deepgram")
