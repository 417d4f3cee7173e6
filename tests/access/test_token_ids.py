"""The id of a key or token, from all of it; and what is refused as secret."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.secrets import new_key
from marketfeed.access.token_ids import id_of, looks_secret
from marketfeed.errors import AccessError
from tests.support.tokens import token


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
@pytest.mark.parametrize("around", ["{}", " {}\n", "Bearer {}"])
def test_a_whole_token_gives_its_jti(algorithm, around):
    assert id_of(around.format(token(algorithm, jti="j 1"))) == "j 1"


@pytest.mark.parametrize("around", ["{}", " {}\n", "bearer {}"])
def test_a_whole_key_gives_its_id(around):
    key_id, _, key = new_key()
    assert id_of(around.format(key)) == key_id
    assert id_of(f"mfk_{key_id}") == key_id


@pytest.mark.parametrize("jti", [1, ["a"], "a\x07", "a" * 257, "mfk_5f1e0c9a7b21_x"])
def test_a_jti_that_no_engine_accepts_is_refused(jti):
    with pytest.raises(AccessError, match="no engine accepts it"):
        id_of(token(jti=jti))


@pytest.mark.parametrize("payload", [{}, {"jti": None}, {"jti": ""}])
def test_a_token_without_jti_is_refused_with_what_to_do(payload):
    with pytest.raises(AccessError, match="revoke --sub NAME"):
        id_of(jwt.encode(payload, "a secret of tests, 32 bytes or more"))


@given(st.data())
def test_a_part_of_a_secret_is_never_an_id(data):
    whole = data.draw(st.sampled_from([token(jti="j"), token("EdDSA", jti="j"), new_key()[2]]))
    end = data.draw(st.integers(whole.find("_", 5) + 1 or 40, len(whole) - 1))
    found = ""
    try:
        found = id_of(whole[:end])
    except AccessError as error:
        found = str(error)
    assert whole[:20] not in found
    assert found == "j" or "give all of it" in found
    assert looks_secret(f"leaked {whole}")


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_other_text_is_an_id_if_it_may_be_one(text):
    fits = 1 <= len(text) <= 256 and text.isprintable()
    try:
        assert id_of(text) == text
        assert fits
    except AccessError:
        assert not fits
