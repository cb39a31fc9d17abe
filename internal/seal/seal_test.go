package seal

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

var (
	keyA = bytes.Repeat([]byte{'a'}, 32)
	keyB = bytes.Repeat([]byte{'b'}, 32)
)

// TestSeal: a value opens for its purpose, beside its data, by who has both
// secrets, and in no other way.
func TestSeal(t *testing.T) {
	ring := New([][]byte{keyA, keyB})
	bind, aad, plain := []byte("bind"), []byte("aad"), []byte("plain")
	sealed := ring.Seal("purpose", bind, aad, plain)

	if got, err := ring.Open("purpose", bind, aad, sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("open: %q %v", got, err)
	}
	for _, tc := range []struct {
		name      string
		ring      Keyring
		purpose   string
		bind, aad []byte
	}{
		{"another purpose", ring, "purposf", bind, aad},
		{"no purpose", ring, "", bind, aad},
		{"another second secret", ring, "purpose", []byte("binf"), aad},
		{"no second secret", ring, "purpose", nil, aad},
		{"other data", ring, "purpose", bind, []byte("aae")},
		{"no data", ring, "purpose", bind, nil},
		{"secret and data swapped", ring, "purpose", aad, bind},
		{"another key", New([][]byte{keyB}), "purpose", bind, aad},
		{"no key", nil, "purpose", bind, aad},
	} {
		if got, err := tc.ring.Open(tc.purpose, tc.bind, tc.aad, sealed); err == nil {
			t.Errorf("%s opens it: %q", tc.name, got)
		}
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 0x40
		if _, err := ring.Open("purpose", bind, aad, altered); err == nil {
			t.Errorf("opens with byte %d altered", i)
		}
		if _, err := ring.Open("purpose", bind, aad, sealed[:i]); err == nil {
			t.Errorf("opens cut to %d bytes", i)
		}
	}
	if _, err := ring.Open("purpose", bind, aad, append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("opens with a byte more")
	}
}

// TestSealRotation: the first key seals, all open, whatever their order; one
// that was dropped opens nothing, even under its successor's id.
func TestSealRotation(t *testing.T) {
	oldFirst, newFirst := New([][]byte{keyA, keyB}), New([][]byte{keyB, keyA})
	for _, ring := range []Keyring{oldFirst, newFirst} {
		sealed := ring.Seal("p", nil, nil, []byte("x"))
		if got := [keyIDLen]byte(sealed[1:]); got != ring[0].id {
			t.Errorf("sealed by %x, want the first key, %x", got, ring[0].id)
		}
		for _, other := range []Keyring{oldFirst, newFirst} {
			if _, err := other.Open("p", nil, nil, sealed); err != nil {
				t.Errorf("a value sealed on one replica does not open on another: %v", err)
			}
		}
	}
	sealed := New([][]byte{keyA}).Seal("p", nil, nil, []byte("x"))
	onlyB := New([][]byte{keyB})
	if _, err := onlyB.Open("p", nil, nil, sealed); err == nil {
		t.Error("a dropped key still opens")
	}
	copy(sealed[1:], onlyB[0].id[:])
	if _, err := onlyB.Open("p", nil, nil, sealed); err == nil {
		t.Error("the key id decides, not the key")
	}
	// Two keys may have one id: all of that id are tried.
	twins := New([][]byte{keyB, keyA})
	sealed = twins[1:].Seal("p", nil, nil, []byte("x"))
	copy(sealed[1:], twins[0].id[:])
	twins[1].id = twins[0].id
	if _, err := twins.Open("p", nil, nil, sealed); err != nil {
		t.Errorf("the second key of an id is not tried: %v", err)
	}
}

// TestSealIsFresh: no two values look alike, and sameSeal tells them apart.
func TestSealIsFresh(t *testing.T) {
	ring := New([][]byte{keyA})
	seen := map[string]bool{}
	for range 100 {
		sealed := ring.Seal("p", nil, nil, []byte("the same"))
		header, body := string(sealed[:sealHeader]), string(sealed[sealHeader:])
		if seen[header] || seen[body] {
			t.Fatal("two seals of one value have something in common")
		}
		seen[header], seen[body] = true, true
	}
	one, two := ring.Seal("p", nil, nil, []byte("x")), ring.Seal("p", nil, nil, []byte("x"))
	if !Same(one, bytes.Clone(one)) || Same(one, two) || Same(one, one[:4]) || Same(nil, nil) {
		t.Error("sameSeal is wrong")
	}
}

// TestStoreKey: a key in the store fits its alphabet, tells nothing, and does
// not depend on Config.Keys.
func TestStoreKey(t *testing.T) {
	secret := bytes.Repeat([]byte{0xff}, 32)
	key := StoreKey("s", secret)
	if len(key) > 128 || strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		t.Errorf("key %q", key)
	}
	if strings.Contains(key, Encode(secret)[:8]) {
		t.Errorf("key %q holds the secret", key)
	}
	if StoreKey("s", secret) != key || StoreKey("c", secret)[2:] == key[2:] || StoreKey("s", secret[1:]) == key {
		t.Error("keys of different kinds or secrets are related")
	}
}

// TestDecode: one value has one spelling.
func TestDecode(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {1, 2}, {1, 2, 3}, bytes.Repeat([]byte{0xfb}, 33)} {
		if got, err := Decode(Encode(b)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("decode(encode(%x)) = %x %v", b, got, err)
		}
	}
	for _, s := range []string{"A", "AB", "AA==", "AA\n", "\rAA", "A A", "A+8", "A/8", "AA.", "é"} {
		if got, err := Decode(s); err == nil {
			t.Errorf("decode(%q) = %x, want an error", s, got)
		}
	}
}

// The bytes of a key, and of what is derived from it for good, are in no text
// made of a Keyring.
func TestPrinted(t *testing.T) {
	ring := New([][]byte{keyA})
	for _, secret := range [][]byte{keyA, ring[0].secret()} {
		for _, v := range []any{ring, ring[0], &ring[0], struct{ r Keyring }{ring}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
				for _, form := range []string{fmt.Sprintf("%x", secret[:8]), strings.Trim(fmt.Sprint(secret[:8]), "[]"), strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:8]), "[]byte"), "{}")} {
					if out := fmt.Sprintf(verb, v); strings.Contains(out, form) || strings.Contains(out, string(secret[:8])) {
						t.Errorf("%s of a %T shows %s", verb, v, out)
					}
				}
			}
		}
	}
}
