"""The compiler's cache: on by default, where the environment says nothing else; starts are told cold from warm."""

import jax
import jax.numpy as jnp

from cvresearch.base import compile_cache


def test_programs_keep_what_they_compile_unless_told_otherwise(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    try:
        compile_cache.keep_compiled()  # the tests have a folder of their own
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv(compile_cache.VARIABLE)
        compile_cache.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == str(compile_cache.folder())
        assert compile_cache.folder().is_relative_to(tmp_path)
    finally:
        jax.config.update('jax_compilation_cache_dir', before)


def test_a_second_start_is_read_from_the_cache():
    found = []
    with compile_cache.empty():
        for _ in range(2):
            jax.clear_caches()
            with compile_cache.counted() as counts:
                jax.jit(lambda x: x @ x.T + 3).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile()
            found.append(counts)
    assert found == [{'cached': 0, 'compiled': 1}, {'cached': 1, 'compiled': 0}]
