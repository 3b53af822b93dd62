"""The recordings."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Recording",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=200)),
                ("request_id", models.CharField(max_length=100, null=True, unique=True)),
                ("text", models.TextField(null=True)),
            ],
            options={"ordering": ("-id",)},
        ),
    ]
