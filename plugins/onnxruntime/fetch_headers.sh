#!/usr/bin/env bash
# fetch_headers.sh DEST: puts the headers of ONNX Runtime into DEST/usr/include/onnxruntime and prints that folder.
# They are those of Debian 13's libonnxruntime-dev; nothing is installed, and no setting of apt is changed.
# Does nothing where DEST has them already. Where apt or the network is missing it prints one line and exits with 1.
set -euo pipefail

fail() {
  echo "fetch_headers.sh: $1; give the folder of onnxruntime_cxx_api.h as -DIRFORGE_ORT_INCLUDE=... instead" >&2
  exit 1
}

[ $# -eq 1 ] || { echo "usage: fetch_headers.sh DEST" >&2; exit 2; }
mkdir -p "$1"
dest=$(cd "$1" && pwd)
headers=$dest/usr/include/onnxruntime
if [ -f "$headers/onnxruntime_cxx_api.h" ]; then
  echo "$headers"
  exit 0
fi

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || fail "$tool is not on this machine"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || fail "$keyring is missing (package debian-archive-keyring)"

# The mirror that this machine already uses for Debian itself, so that a site's own mirror is respected.
mirror=$(
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
    grep -oE '^(URIs:|deb( \[[^]]*\])?) *https?://[^ ]*/debian/?( |$)' | grep -oE 'https?://[^ ]+' | head -n 1
) || true
mirror=${mirror:-http://deb.debian.org/debian}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb [signed-by=$keyring] $mirror trixie main" >"$work/sources.list"
apt=(apt-get -qq
  -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o "Dir::Cache::Archives=$work/archives"
  -o APT::Sandbox::User= -o APT::Update::Error-Mode=any -o Acquire::Retries=2 -o Acquire::http::Timeout=20)
"${apt[@]}" update >"$work/log" 2>&1 ||
  fail "apt-get cannot read $mirror: $(grep -m 1 '^[EW]:' "$work/log" || echo 'no reason given')"
(cd "$work" && "${apt[@]}" download libonnxruntime-dev) >"$work/log" 2>&1 ||
  fail "apt-get cannot download libonnxruntime-dev: $(grep -m 1 '^E:' "$work/log" || echo 'no reason given')"

# Renamed as a whole, so that a run that is interrupted leaves nothing that looks complete.
dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/package"
mkdir -p "$dest/usr/include"
cp -R "$work/package/usr/include/onnxruntime" "$headers.partial.$$"
mv -T "$headers.partial.$$" "$headers" 2>/dev/null || rm -rf "$headers.partial.$$"
[ -f "$headers/onnxruntime_cxx_api.h" ] || fail "libonnxruntime-dev holds no onnxruntime_cxx_api.h"
echo "$headers"
