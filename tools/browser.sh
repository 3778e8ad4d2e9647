#!/bin/sh
# Installs the Chromium that the browser tests drive, and fonts for Korean and emoji.
set -eu
if [ ! -x /usr/bin/chromium ] || ! fc-list :lang=ko 2>/dev/null | grep -q .; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "The browser tests need /usr/bin/chromium and a Korean font. Install them." >&2
        exit 1
    fi
    echo "Installing Chromium"
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        chromium fontconfig fonts-noto-cjk fonts-noto-color-emoji >/dev/null
fi
touch .venv/browser
