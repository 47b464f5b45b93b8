#!/bin/bash
# Makes the release of the newest version in CHANGELOG.md: its packages, their sums and its notes, in OUT. `make release`
# calls it. It refuses what would not be the version: a dirty tree, entries without a version, a tag elsewhere.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${MAKE:=make}" "${OUT:=build/out/release}" "${WORK:=build/out/package}"

refuse() { echo "no release: $*" >&2; exit 1; }

# notes HEADING: what CHANGELOG.md says under it.
notes() { awk -v h="## [$1]" 'index($0, "## [") == 1 { on = index($0, h) == 1; next } on' CHANGELOG.md | sed -e '/./,$!d'; }

dirty=$(git status --porcelain) || refuse "this is not a clone of the repository"
[ -z "$dirty" ] || refuse "the tree has changes that are not committed: commit or stash them"$'\n'"$dirty"
version=$(sed -nE 's/^## \[([0-9]+\.[0-9]+\.[0-9]+)\].*/\1/p' CHANGELOG.md | head -n 1)
[ -n "$version" ] || refuse "CHANGELOG.md has no version such as ## [0.1.0] - 2026-01-31"
[ -z "$(notes Unreleased)" ] || refuse "CHANGELOG.md has entries under Unreleased: give them a version"
commit=$(git rev-parse HEAD)
tagged=$(git rev-parse -q --verify "refs/tags/v$version^{commit}" || true)
[ -z "$tagged" ] || [ "$tagged" = "$commit" ] || refuse "the tag v$version is at ${tagged:0:12}, and this is ${commit:0:12}"

rm -rf "$OUT"
"$MAKE" packages OUT="$(dirname "$OUT")" VERSION="$version" COMMIT="${commit:0:12}"
mv "$(dirname "$OUT")/packages" "$OUT"
{
	echo "# fluent-bit-defender $version"
	echo
	echo "Commit $commit. Install and verify: examples/README.md."
	echo
	notes "$version"
	echo
	echo '## SHA-256'
	echo
	sed 's/^/    /' "$OUT/SHA256SUMS"
} >"$OUT/NOTES.md"
echo "$OUT has version $version"
[ -n "$tagged" ] || echo "next: git tag -a v$version $commit"
