"""Where a secret may stand in what users type: each place as a function from the secret to the text around it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote

Place = Callable[[str], str]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LETTERS_AND_SIGNS = ALPHABET + "+/=_-.~!$%^*()@"  # of passwords, as far as a URL or plain YAML carries them
URL_SIGNS = ALPHABET + "+/=_-.~!$*()@:"

# Values after names: letters and signs.
NAMES = (
    "token", "hub.token", "HF_TOKEN", "access_token", "refreshToken", "password", "db.pwd", "DB_PASSWORD", "passwd",
    "passphrase", "ssh_passphrase", "secret", "client_secret", "aws_secret_access_key", "api_key", "apiKey", "api-key",
    "private_key", "AccountKey", "SharedAccessKey", "credentials", "authorization", "hub.auth", "cookie", "smtp_pass",
    "my_password_2", "OPENAI_API_KEY", "X-Amz-Security-Token", "dbpassword", "SECRET_KEY",
)  # fmt: skip
AFTER_NAMES: tuple[Callable[[str, str], str], ...] = (
    lambda name, secret: f"{name}={secret}",
    lambda name, secret: f"{name}: {secret}",
    lambda name, secret: f'"{name}": {json.dumps(secret)}',
    lambda name, secret: f"hub={{{name}: {secret}, seed: 1}}",
    lambda name, secret: f"hub={{{name}: {json.dumps(secret)}}}",
    lambda name, secret: f"hub={{a: [{{{name}: {secret}}}]}}",
    lambda name, secret: f'{{"a": 1, "{name}": {json.dumps(secret)}, "b": 2}}',
    lambda name, secret: f"it said {name} = {secret!r}, and ended",
    lambda name, secret: f"a=1\n  {name}: {secret}\nb: 2",
)

# Credentials in URLs: letters and the signs that people leave unquoted.
IN_URLS: tuple[Place, ...] = (
    lambda secret: f"s3://AKEY:{secret}@bucket/prefix",
    lambda secret: f"s3://{quote(secret, safe='')}@bucket/prefix",
    lambda secret: f"https://user:{secret}@host.example/path?x=1",
    lambda secret: f"https://{quote(secret, safe='')}@host.example/path",
    lambda secret: f"https://{quote(secret, safe='')}:x-oauth-basic@host.example/path",
    lambda secret: f"postgres://user:{secret}@host:5432/db",
    lambda secret: f"mysql+pymysql://user:{secret}@host/db",
    lambda secret: f"redis://:{secret}@host:6379/0",
    lambda secret: f"git+https://user:{secret}@host/x.git@main",
    lambda secret: f"could not read 'https://u:{secret}@host/x', it said",
)
PARAMETERS = ("sig", "token", "X-Amz-Signature", "X-Amz-Credential", "access_token", "key", "api_key", "auth")


def in_query(name: str) -> Place:
    return lambda secret: f"https://host/x?a=1&{name}={quote(secret, safe='')}&b=2"


IN_QUERIES: tuple[Place, ...] = (
    *map(in_query, PARAMETERS),
    lambda secret: f"https://host/x#access_token={quote(secret, safe='')}",
    lambda secret: f"abfs://box@account/x?sv=2020&sig={quote(secret, safe='')}",
)

# Tokens by their own form: the secret is what follows the mark.
TOKENS: tuple[Place, ...] = (
    lambda secret: f"hf_{secret}", lambda secret: f"ghp_{secret}", lambda secret: f"github_pat_{secret}",
    lambda secret: f"glpat-{secret}", lambda secret: f"sk-{secret}", lambda secret: f"sk-proj-{secret}",
    lambda secret: f"sk-ant-api03-{secret}", lambda secret: f"xoxb-{secret}", lambda secret: f"npm_{secret}",
    lambda secret: f"nvapi-{secret}", lambda secret: f"gsk_{secret}", lambda secret: f"sk_live_{secret}",
    lambda secret: f"AKIA{secret.upper()}", lambda secret: f"AIza{secret}{secret}", lambda secret: f"Bearer {secret}",
    lambda secret: f"Basic {base64.b64encode(f'user:{secret}'.encode()).decode()}",
    lambda secret: f"eyJhbGciOi.{secret}.{secret}",
    lambda secret: f"-----BEGIN RSA PRIVATE KEY-----\n{secret}\n{secret}\n-----END RSA PRIVATE KEY-----",
    lambda secret: f"-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n",
)  # fmt: skip
AROUND: tuple[Place, ...] = (
    lambda token: token,
    lambda token: f"/home/me/{token}/x",
    lambda token: f"it is '{token}', I think.",
    lambda token: f"base_model.path=org/{token}",
    lambda token: json.dumps({"a": [token]}),
    shlex.quote,
)

# What looks a little like a secret, and is none.
HARMLESS = (
    "sk-learn/model", "sk-learn-contrib/imbalanced-learn", "org/sk-mobilenetv2", "hf_transfer and hf_xet",
    "hf-internal-testing/tiny-random-LlamaForCausalLM", "meta-llama/Llama-3.2-1B", "/home/me/secret/study.yaml",
    "/srv/tokens/rows.jsonl", "token.yaml: line 3: must be YAML", "credentials.json is not read", "runs/password-study",
    "dataset.max_tokens=128", "max_new_tokens: 24", "eos_token: </s>", "pad_token_id = 3", '{"bos_token": "<s>"}',
    "tokens_per_second: 410.5", "train_tokens=1024", "tokenizer: llama", "ssh://git@host/x.git",
    "https://host:8265/x@y", "git+https://host/x/y@main", "http://[::1]:8265/x@y", "postgres://user@host/db",
    "RAY_AUTH_MODE=token", "export HF_TOKEN=$HF_TOKEN", "password: null",
    "Bearer tokens expire", "Basic configuration", "a basic training-loop", "forward_pass=3",
    "PWD=/home/me", "the key: rank", "primary_key=7", "num_key_value_heads: 8", "signature: (a, b)",
    "s3://bucket/prefix?region=eu-west-1", "gs://bucket/token/x", "user@example.com", "x@y://z", "a: b: c",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "commit c60cb1c00f285e23cac89",
    "GPU-5a1b2c3d-1234-5678-9abc-def012345678", "--set training.max_steps=20", "python -m study resume runs/x-2026",
)  # fmt: skip
HARMLESS_IN_TEXT = ("HF_TOKEN=… in the environment", "headers(token=self.token)", "x = f(password=password)")
