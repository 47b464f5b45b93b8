#!/bin/bash
# Makes the packages: .deb, .rpm and .tar.gz of each of ARCHES, their SBOMs, and the sums of all. `make packages` calls it.
# The same commit gives the same bytes in any folder and at any time: dates are those of the commit.
# From the environment: GO, OUT (the folder for the packages), WORK (what they are made from), VERSION, COMMIT, ARCHES, NFPM, CYCLONEDX, SOURCE_DATE_EPOCH.
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 022
export LC_ALL=C TZ=UTC
: "${GO:=go}" "${OUT:=build/out/packages}" "${WORK:=build/out/package}" "${ARCHES:=amd64 arm64}"
: "${VERSION:?}" "${COMMIT:?}" "${NFPM:?}" "${CYCLONEDX:?}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
case $VERSION in
[0-9]*) ;;
*) echo "a package's version begins with a digit: $VERSION" >&2; exit 1 ;;
esac

rm -rf "$OUT" "$WORK"
mkdir -p "$OUT"
machine=$($GO env GOHOSTARCH)

# compiler ARCH: the name of the C compiler for it.
compiler() {
	local cross
	case $1 in
	"$machine") echo "${CC:-gcc}"; return ;;
	amd64) cross=x86_64-linux-gnu-gcc ;;
	arm64) cross=aarch64-linux-gnu-gcc ;;
	*) echo "packages are made for amd64 and arm64, not $1" >&2; return 1 ;;
	esac
	command -v "$cross" >/dev/null || { echo "$cross is missing: apt-get install gcc-${cross%-gcc}" >&2; return 1; }
	echo "$cross"
}

# licences ARCH: the licences of Go and of every module in the library, each under its name and version.
licences() {
	local path version dir found
	echo "The library in_defender.so contains the following software, each under its own licence."
	{
		echo "Go $($GO env GOVERSION) $($GO env GOROOT)"
		GOARCH=$1 CGO_ENABLED=1 $GO list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./plugin | sort -u
	} | while read -r path version dir; do
		found=
		for f in "$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/NOTICE* "$dir"/PATENTS*; do
			[ -f "$f" ] || continue
			case ${f##*/} in LICEN[CS]E* | COPYING*) found=yes ;; esac
			printf '\n%s\n%s %s, %s\n%s\n\n' "$(printf '=%.0s' {1..100})" "$path" "$version" "${f##*/}" "$(printf '=%.0s' {1..100})"
			cat "$f"
		done
		if [ -z "$found" ]; then
			echo "$path $version: no licence in $dir" >&2
			return 1
		fi
	done
}

$GO mod download
# Trimmed: the SBOM holds the hash of the tool that has made it.
GOBIN=$PWD/$WORK/bin $GO install -trimpath "$CYCLONEDX"
for arch in $ARCHES; do
	work=$WORK/$arch
	root=$work/root
	mkdir -p "$work"
	make -s plugin OUT="$work" GOARCH="$arch" CC="$(compiler "$arch")" VERSION="$VERSION" COMMIT="$COMMIT"
	install -D -m 755 "$work/in_defender.so" "$root/opt/fluent-bit/lib/fluent-bit/in_defender.so"
	install -D -m 755 build/package/files/check "$root/usr/bin/fluent-bit-defender-check"
	install -D -m 644 build/package/files/10-defender.conf "$root/usr/lib/systemd/system/fluent-bit.service.d/10-defender.conf"
	install -D -m 644 build/package/files/plugins.conf "$root/etc/fluent-bit/defender/plugins.conf"
	install -D -m 600 build/package/files/environment "$root/etc/fluent-bit/defender/environment"
	share=$root/usr/share/fluent-bit-defender doc=$root/usr/share/doc/fluent-bit-defender
	for siem in splunk elastic opensearch; do
		# fluent-bit.yaml is the SIEM's main configuration; another, such as add-on.yaml, is splunk-add-on.yaml here.
		for f in examples/$siem/*.yaml; do
			case ${f##*/} in
			compose.yaml) ;;
			fluent-bit.yaml) install -D -m 644 "$f" "$root/etc/fluent-bit/defender/$siem.yaml" ;;
			*) install -D -m 644 "$f" "$root/etc/fluent-bit/defender/$siem-${f##*/}" ;;
			esac
		done
		for f in examples/$siem/*.json examples/$siem/*.conf; do
			[ ! -f "$f" ] || install -D -m 644 "$f" "$share/$siem/${f##*/}"
		done
	done
	install -D -m 644 LICENSE "$doc/copyright"
	install -D -m 644 CHANGELOG.md "$doc/CHANGELOG.md"
	licences "$arch" >"$doc/THIRD-PARTY-LICENSES"
	# Without a proxy: else the SBOM would depend on whether this module is published there. Nor with
	# the sum database, which is asked through it: go.sum was checked when the library was built.
	GOPROXY=off GOSUMDB=off "$WORK/bin/cyclonedx-gomod" bin -json -licenses -std -noserial -notimestamp -version "v$VERSION" -output "$doc/sbom.cdx.json" "$work/in_defender.so" 2>"$work/sbom.log" ||
		{ cat "$work/sbom.log" >&2; exit 1; }
	install -d -m 750 "$root/var/lib/fluent-bit"

	cp "$doc/sbom.cdx.json" "$OUT/fluent-bit-defender-$VERSION-linux-$arch.cdx.json"
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	for kind in deb rpm; do
		GOARCH= ROOT=$root ARCH=$arch VERSION=$VERSION $GO run "$NFPM" package --config build/package/nfpm.yaml --packager $kind --target "$OUT/"
	done
	# Files, and the folders that are ours alone: unpacking must not change the mode of /etc or /opt.
	(cd "$root" && { find . ! -type d; echo ./etc/fluent-bit/defender; echo ./var/lib/fluent-bit; } | sed 's|^\./||' | sort) |
		tar --create --no-recursion --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --directory "$root" --files-from - |
		gzip -9n >"$OUT/fluent-bit-defender-$VERSION-linux-$arch.tar.gz"
done
# A library that Fluent Bit cannot load, for its glibc or another library, becomes no package.
$GO test -count=1 -run '^(TestGlibc|TestLibraries|TestExports)$' ./build/image || { rm -rf "$OUT"; exit 1; }
(cd "$OUT" && sha256sum -- *.deb *.rpm *.tar.gz *.cdx.json >SHA256SUMS && cat SHA256SUMS)
