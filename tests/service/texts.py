"""What the tests have read: small documents with facts in them, each of its own beginning. And what
a context says of itself, by docs/api.md."""

FIELDS = {"id", "object", "model", "kind", "status", "created", "last_used", "expires_at", "pinned",
          "tokens", "total_tokens", "text_bytes", "turns", "disk_bytes", "own_bytes",
          "forked_from", "metadata", "error"}
QUESTION = "What is the password?"
LINE = "On day {n} the keeper of {place} noted wind {n} and a sea of {m} feet.\n"


def document(place, n_lines, fact=""):
    """About 20 tokens and 70 bytes a line; nothing of it is a beginning of another place's."""
    lines = [LINE.format(n=n, m=n % 17, place=place) for n in range(1, n_lines + 1)]
    lines.insert(n_lines // 2, fact + "\n" if fact else "")
    return f"The log of {place}.\n" + "".join(lines)


def password(place, word, n_lines):
    return document(place, n_lines, f"The password of {place} is {word}.")
