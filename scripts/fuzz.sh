#!/bin/bash
# Runs every fuzz target of every module, one after the other.
# usage: scripts/fuzz.sh [time for each, such as 30s]
set -euo pipefail
time=${1:-30s}
count=0
while read -r dir; do
	cd "$dir"
	# A module may have no packages yet.
	for package in $(go list ./... 2>/dev/null); do
		targets=$(go test -run '^$' -list '^Fuzz' "$package")
		for target in $(grep '^Fuzz' <<<"$targets"); do
			echo "== $package $target"
			# By default each new input is made smaller for up to a minute, which
			# leaves little of the time for new ones.
			go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 2s "$package"
			count=$((count + 1))
		done
	done
done < <(go list -m -f '{{.Dir}}')
echo "$count targets fuzzed for $time each"
