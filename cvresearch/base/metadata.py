"""Google's metadata server: what a machine of Compute Engine, such as a TPU VM, can ask about itself."""

import os
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 2.0
_PRODUCT = Path('/sys/class/dmi/id/product_name')


def server() -> str | None:
    """Returns the host of the metadata server, None where this is no machine of Google's.

    $GCE_METADATA_HOST names another, as for Google's own libraries, and $NO_GCE_CHECK=true turns all this off. Nothing
    is sent elsewhere: the name in the firmware tells where we are.
    """
    if os.environ.get('NO_GCE_CHECK', '').lower() == 'true':
        return None
    google = _PRODUCT.exists() and 'Google' in _PRODUCT.read_text(encoding='utf-8', errors='replace')
    return os.environ.get('GCE_METADATA_HOST') or ('metadata.google.internal' if google else None)


def value(host: str, name: str) -> str:
    """Returns a value of this instance, 'preempted' or 'attributes/...'; '' where there is none, or no answer."""
    url = f'http://{host}/computeMetadata/v1/instance/{name}'
    request = urllib.request.Request(url, headers={'Metadata-Flavor': 'Google'})
    # No proxy: the address has a meaning on this machine alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.read().decode().strip()
    except OSError:
        return ''
