"""The settings: as little as a project needs, and where Deepgram is."""

import os
from pathlib import Path

DATA = Path(os.environ.get("DATA", ".")).resolve()
DEEPGRAM_URL = os.environ.get("DEEPGRAM_URL", "http://127.0.0.1:8090")  # the emulator
LOCAL = DEEPGRAM_URL != "https://api.deepgram.com"  # so what it calls back may be local too
if LOCAL:  # for development only: Deepgram itself needs real ones
    os.environ.setdefault("CALLBACK_KEY", "for-development-only-and-not-a-secret")
    os.environ.setdefault("DEEPGRAM_API_KEY", "any")
    os.environ.setdefault("SECRET_KEY", "for-development-only-and-not-a-secret-either")

CALLBACK_KEY = os.environ["CALLBACK_KEY"]
DEEPGRAM_API_KEY = os.environ["DEEPGRAM_API_KEY"]
PUBLIC_URL = os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000/deepgram")

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost", *filter(None, [os.environ.get("ALLOWED_HOST")])]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
INSTALLED_APPS = ["recordings"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "recordings.db"}}
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING = {  # at INFO httpx writes the callback URL, which is a secret
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"httpx": {"level": "WARNING"}},
}
