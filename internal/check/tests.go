package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is a line of "go test -json" (go doc test2json).
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	ImportPath  string // of what is being built, a test variant perhaps
	FailedBuild string
}

// failure is a test, or a package as a whole, and what it said.
type failure struct{ name, output string }

// result is what is known of one test, or of a package as a whole.
type result struct {
	pkg, test   string
	verdict     string // pass, fail, skip; empty if it never ended
	failedBuild string
	output      strings.Builder
}

// readTests reads the events of a test run and counts tests, subtests and
// examples. A skipped test counts as failed: what does not run proves nothing.
// A package counts only if it failed and none of its tests did.
func readTests(r io.Reader) (passed int, failures []failure, err error) {
	run := &testRun{results: map[testName]*result{}, builds: map[string]*strings.Builder{}}
	d := json.NewDecoder(r)
	for err == nil {
		var e event
		if err = d.Decode(&e); err == nil {
			run.take(e)
		}
	}
	passed, failures = run.tests()
	if !errors.Is(err, io.EOF) {
		return passed, failures, fmt.Errorf("reading the output of go test: %w", err)
	}
	return passed, failures, nil
}

// testRun is what a test run has said so far.
type testRun struct {
	results map[testName]*result
	order   []*result
	builds  map[string]*strings.Builder
}

type testName struct{ pkg, test string }

func (run *testRun) take(e event) {
	if e.Action == "build-output" {
		if run.builds[e.ImportPath] == nil {
			run.builds[e.ImportPath] = &strings.Builder{}
		}
		run.builds[e.ImportPath].WriteString(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	k := testName{e.Package, e.Test}
	res := run.results[k]
	if res == nil {
		res = &result{pkg: e.Package, test: e.Test}
		run.results[k] = res
		run.order = append(run.order, res)
	}
	switch e.Action {
	case "output":
		// "=== RUN" and the like say nothing that the verdict does not.
		if !strings.HasPrefix(e.Output, "=== ") {
			res.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		res.verdict, res.failedBuild = e.Action, e.FailedBuild
	}
}

// tests judges the tests, and then the packages that failed without one.
func (run *testRun) tests() (passed int, failures []failure) {
	explained := map[string]bool{} // the packages that failed by a test
	for _, res := range run.order {
		switch {
		case res.test == "":
		case res.verdict == "pass":
			passed++
		default:
			explained[res.pkg] = true
			if res.verdict == "" {
				res.verdict = "never ended"
			}
			failures = append(failures, failure{fmt.Sprintf("%s %s (%s)", res.pkg, res.test, res.verdict), res.output.String()})
		}
	}
	for _, res := range run.order {
		// A package without tests is skipped as a whole, which is no failure.
		if res.test != "" || res.verdict == "pass" || res.verdict == "skip" || explained[res.pkg] {
			continue
		}
		output := res.output.String()
		if b := run.builds[res.failedBuild]; b != nil {
			output = b.String()
			b.Reset() // several packages may share it
		}
		failures = append(failures, failure{res.pkg, output})
	}
	return passed, failures
}
