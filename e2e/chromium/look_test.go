package chromium

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// faultsOf is a script that lists what keeps people from reading a page.
const faultsOf = `(() => {
	const faults = [], all = s => [...document.querySelectorAll(s)], root = document.documentElement;
	const say = (e, text) => faults.push(text + ": " + e.outerHTML.slice(0, 120));
	if (!root.lang) faults.push("no language");
	if (!document.title.trim()) faults.push("no title");
	if (document.compatMode != "CSS1Compat") faults.push("quirks mode");
	if (all("h1").length != 1) faults.push(all("h1").length + " first headings");
	if (all("main").length != 1) faults.push(all("main").length + " main landmarks");
	if (all("script").length) faults.push("a script");
	if (!all("main, .card").some(e => getComputedStyle(e).borderTopWidth == "1px")) faults.push("no style applies");
	for (const e of all("input:not([type=hidden]), textarea, select"))
		if (![...e.labels].some(l => l.innerText.trim())) say(e, "no label");
	for (const e of all("a, button"))
		if (!e.innerText.trim()) say(e, "no text");
	for (const e of all("button, .button, .actions a"))
		if (e.getBoundingClientRect().height < 44) say(e, "too small for a finger");
	const ids = all("[id]").map(e => e.id);
	if (new Set(ids).size != ids.length) faults.push("an id occurs twice");
	if (root.scrollWidth > root.clientWidth) faults.push("scrolls sideways: " + root.scrollWidth + " in " + root.clientWidth);

	// WCAG 2.2, 1.4.3.
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
	const rgba = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data };
	const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, k, i) => { const v = c[i] / 255; return sum + k * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) }, 0);
	const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] == 255) return c } return rgba("Canvas") };
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.data.trim() || !e.checkVisibility()) continue;
		const style = getComputedStyle(e), size = parseFloat(style.fontSize), a = light(rgba(style.color)), b = light(behind(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		const least = size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5;
		if (ratio < least) say(e, "contrast " + ratio.toFixed(2));
	}
	return faults;
})()`

// look checks the page that a tab shows, narrow, in light and dark, and takes
// its pictures if they were asked for.
func (b *tab) look(name string) {
	b.t.Helper()
	defer func() {
		tell(b, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
		tell(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	}()
	for _, scheme := range []string{"light", "dark"} {
		tell(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		b.width(320)
		for _, fault := range eval[[]string](b, faultsOf) {
			b.t.Errorf("%s, 320 pixels wide, %s: %s", name, scheme, fault)
		}
		if *screenshots == "" {
			continue
		}
		for _, width := range []int64{390, 1280} {
			b.width(width)
			picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			b.must(err)
			file := strings.ReplaceAll(name, " ", "-") + "-" + strconv.FormatInt(width, 10) + "-" + scheme + ".png"
			b.must(os.MkdirAll(*screenshots, 0o755))
			b.must(os.WriteFile(filepath.Join(*screenshots, file), picture, 0o644))
		}
	}
}

func (b *tab) width(pixels int64) {
	b.t.Helper()
	tell(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: pixels, Height: 800, DeviceScaleFactor: 1, Mobile: pixels < 600,
	})
}
