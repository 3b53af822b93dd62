"""The page, and its form."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from .callbacks import transcribe
from .models import Recording


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    return render(request, "recordings/index.html", {"recordings": Recording.objects.all()})


@require_POST
def submit(request: HttpRequest) -> HttpResponse:
    audio = request.FILES["audio"]
    recording = Recording.objects.create(name=audio.name)  # first: the callback may be faster than this view
    transcribe(recording, audio.read())
    return HttpResponseRedirect(reverse("index"))
