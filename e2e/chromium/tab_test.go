package chromium

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

const (
	testLimit = 60 * time.Second // for a whole test
	waitLimit = 20 * time.Second // for a page to come
	pollEvery = 30 * time.Millisecond
)

// profile is a browser with cookies, history and cache of its own.
type profile struct {
	t     *testing.T
	ctx   context.Context
	first *tab
}

func newProfile(t *testing.T) *profile {
	t.Helper()
	return profileIn(t, sharedBrowser, chromedp.WithNewBrowserContext())
}

// profileIn opens a profile in a browser. Without options it is the browser's
// own, with what its preferences say.
func profileIn(t *testing.T, browser context.Context, options ...chromedp.ContextOption) *profile {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, options...)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // binds the tab's life to ctx
		t.Fatalf("opening a profile: %v", err)
	}
	limited, stop := context.WithTimeout(ctx, testLimit)
	t.Cleanup(stop)
	p := &profile{t: t, ctx: limited}
	p.first = &tab{t: t, ctx: limited}
	return p
}

// tab opens one more tab.
func (p *profile) tab() *tab {
	p.t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx)
	p.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		p.t.Fatalf("opening a tab: %v", err)
	}
	return &tab{t: p.t, ctx: ctx}
}

// cookies are the names of the profile's cookies, with their values.
func (p *profile) cookies() map[string]string {
	p.t.Helper()
	all := map[string]string{}
	list, err := chromedp.CallBrowser(p.ctx, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID})
	if err != nil {
		p.t.Fatalf("reading the cookies: %v", err)
	}
	for _, c := range list.Cookies {
		all[c.Name] = c.Value
	}
	return all
}

// tab is one tab. Its methods end the test if the browser does not do as told.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// in is the tab in the hands of a subtest.
func (b *tab) in(t *testing.T) *tab { return &tab{t: t, ctx: b.ctx} }

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	b.must(chromedp.Do(b.ctx, steps...))
}

func (b *tab) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%v; the tab shows %s", err, b.describe())
	}
}

// tell sends a command of the DevTools protocol.
func tell[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	b.must(err)
	return result
}

// open is what the address bar does. It returns what the browser says if no
// page came, and waits for nothing.
func (b *tab) open(url string) (fault string) {
	b.t.Helper()
	return tell(b, page.Navigate, page.NavigateParams{URL: url}).ErrorText
}

// try evaluates an expression, which fails while a page goes and the next comes.
func try[T any](b *tab, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression))
}

// eval evaluates an expression, which may be a promise.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	result, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	b.must(err)
	return result
}

// wait waits until an expression is true on a page that has loaded.
func (b *tab) wait(what, condition string) {
	b.t.Helper()
	b.waitFor(what, func() bool {
		met, err := try[bool](b, `document.readyState == "complete" && !!(`+condition+`)`)
		return err == nil && met
	})
}

// waitFor asks until met says yes.
func (b *tab) waitFor(what string, met func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, waitLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("%s: did not come; the tab shows %s", what, b.describe())
		}
	}
}

// at waits for a page by its URL and its heading.
func (b *tab) at(url, heading string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("%q at %s", heading, url), fmt.Sprintf(`location.href == %s && document.querySelector("h1")?.textContent.trim() == %s`, quoted(url), quoted(heading)))
}

// heading waits for a page by its heading, wherever it is.
func (b *tab) heading(heading string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("page %q", heading), `document.querySelector("h1")?.textContent.trim() == `+quoted(heading))
}

// press clicks a button or link with the mouse.
func (b *tab) press(label string) {
	b.t.Helper()
	b.do(chromedp.Click(labelled(label), chromedp.NodeVisible))
}

func (b *tab) doublePress(label string) {
	b.t.Helper()
	b.do(chromedp.DoubleClick(labelled(label), chromedp.NodeVisible))
}

func labelled(label string) string {
	return fmt.Sprintf(`//*[self::a or self::button][normalize-space()=%q]`, label)
}

// fill enters text into the field with an id, as an input method does, in place
// of what it holds.
func (b *tab) fill(id, text string) {
	b.t.Helper()
	eval[bool](b, `{const e = document.getElementById(`+quoted(id)+`); e.focus(); e.select()}; true`)
	tell(b, input.InsertText, input.InsertTextParams{Text: text})
}

func (b *tab) value(id string) string {
	b.t.Helper()
	return eval[string](b, `document.getElementById(`+quoted(id)+`).value`)
}

// text is what can be read on the page.
func (b *tab) text() string {
	b.t.Helper()
	return eval[string](b, `document.body.innerText`)
}

// shows fails the test unless the page holds a text.
func (b *tab) shows(want string) {
	b.t.Helper()
	if got := b.text(); !strings.Contains(got, want) {
		b.t.Errorf("the page does not say %q:\n%s", want, got)
	}
}

// status is that of the page's own response.
func (b *tab) status() int {
	b.t.Helper()
	return eval[int](b, `performance.getEntriesByType("navigation")[0].responseStatus`)
}

// back goes some pages back. It does not wait: a page from the back/forward
// cache fires no load event.
func (b *tab) back(pages int64) {
	b.t.Helper()
	history := tell(b, page.GetNavigationHistory, cdp.Empty{})
	if history.CurrentIndex < pages {
		b.t.Fatalf("nothing to go back to in %v", history.Entries)
	}
	tell(b, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: history.Entries[history.CurrentIndex-pages].ID})
}

func (b *tab) reload() {
	b.t.Helper()
	tell(b, page.Reload, page.ReloadParams{})
}

// forget removes a cookie of a page.
func (b *tab) forget(name, url string) {
	b.t.Helper()
	tell(b, network.DeleteCookies, network.DeleteCookiesParams{Name: name, URL: url})
}

// describe says what the tab shows, for failures.
func (b *tab) describe() string {
	s, err := try[string](b, `location.href + " (" + document.readyState + "): " + (document.body?.innerText ?? "").slice(0, 600)`)
	if err != nil {
		return "nothing that can be read: " + err.Error()
	}
	return s
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(b)
}
