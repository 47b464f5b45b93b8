#!/bin/bash
# Runs govulncheck. Without its database nothing can be said about vulnerabilities. That is no failure of the code, so
# it does not fail the build, but it must not pass for "none found" either. Where the database can be reached, set
# VULN_REQUIRED: then a check that could not be made is an error, too.
set -u
db=${GOVULNDB:-https://vuln.go.dev}
out=$(mktemp) && trap 'rm -f "$out"' EXIT
"$GO" run "$TOOL" -db "$db" ./... >"$out" 2>&1
rc=$?
cat "$out"
if [ $rc -ne 0 ] && grep -qE 'fetching vulnerabilities|no such host|connection refused|i/o timeout|HTTP GET .* returned unexpected status|invalid URL|lookup .* on|proxyconnect' "$out"; then
	cat >&2 <<-EOF

	  ############################################################################
	  ##  VULNERABILITIES WERE NOT CHECKED: the database $db
	  ##  cannot be reached from here. Run 'make vuln' where it can, or set
	  ##  GOVULNDB=file:///path/of/a/copy
	  ############################################################################

	EOF
	[ -n "${VULN_REQUIRED:-}" ] && exit $rc
	exit 0
fi
exit $rc
