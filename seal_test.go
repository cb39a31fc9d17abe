package signin

import (
	"bytes"
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
	ring := newKeyring([][]byte{keyA, keyB})
	bind, aad, plain := []byte("bind"), []byte("aad"), []byte("plain")
	sealed := ring.seal("purpose", bind, aad, plain)

	if got, err := ring.open("purpose", bind, aad, sealed); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("open: %q %v", got, err)
	}
	for _, tc := range []struct {
		name      string
		ring      keyring
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
		{"another key", newKeyring([][]byte{keyB}), "purpose", bind, aad},
		{"no key", nil, "purpose", bind, aad},
	} {
		if got, err := tc.ring.open(tc.purpose, tc.bind, tc.aad, sealed); err == nil {
			t.Errorf("%s opens it: %q", tc.name, got)
		}
	}
	for i := range sealed {
		altered := bytes.Clone(sealed)
		altered[i] ^= 0x40
		if _, err := ring.open("purpose", bind, aad, altered); err == nil {
			t.Errorf("opens with byte %d altered", i)
		}
		if _, err := ring.open("purpose", bind, aad, sealed[:i]); err == nil {
			t.Errorf("opens cut to %d bytes", i)
		}
	}
	if _, err := ring.open("purpose", bind, aad, append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("opens with a byte more")
	}
}

// TestSealRotation: the first key seals, all open, whatever their order; one
// that was dropped opens nothing, even under its successor's id.
func TestSealRotation(t *testing.T) {
	oldFirst, newFirst := newKeyring([][]byte{keyA, keyB}), newKeyring([][]byte{keyB, keyA})
	for _, ring := range []keyring{oldFirst, newFirst} {
		sealed := ring.seal("p", nil, nil, []byte("x"))
		if got := [keyIDLen]byte(sealed[1:]); got != ring[0].id {
			t.Errorf("sealed by %x, want the first key, %x", got, ring[0].id)
		}
		for _, other := range []keyring{oldFirst, newFirst} {
			if _, err := other.open("p", nil, nil, sealed); err != nil {
				t.Errorf("a value sealed on one replica does not open on another: %v", err)
			}
		}
	}
	sealed := newKeyring([][]byte{keyA}).seal("p", nil, nil, []byte("x"))
	onlyB := newKeyring([][]byte{keyB})
	if _, err := onlyB.open("p", nil, nil, sealed); err == nil {
		t.Error("a dropped key still opens")
	}
	copy(sealed[1:], onlyB[0].id[:])
	if _, err := onlyB.open("p", nil, nil, sealed); err == nil {
		t.Error("the key id decides, not the key")
	}
	// Two keys may have one id: all of that id are tried.
	twins := newKeyring([][]byte{keyB, keyA})
	sealed = twins[1:].seal("p", nil, nil, []byte("x"))
	copy(sealed[1:], twins[0].id[:])
	twins[1].id = twins[0].id
	if _, err := twins.open("p", nil, nil, sealed); err != nil {
		t.Errorf("the second key of an id is not tried: %v", err)
	}
}

// TestSealIsFresh: no two values look alike, and sameSeal tells them apart.
func TestSealIsFresh(t *testing.T) {
	ring := newKeyring([][]byte{keyA})
	seen := map[string]bool{}
	for range 100 {
		sealed := ring.seal("p", nil, nil, []byte("the same"))
		header, body := string(sealed[:sealHeader]), string(sealed[sealHeader:])
		if seen[header] || seen[body] {
			t.Fatal("two seals of one value have something in common")
		}
		seen[header], seen[body] = true, true
	}
	one, two := ring.seal("p", nil, nil, []byte("x")), ring.seal("p", nil, nil, []byte("x"))
	if !sameSeal(one, bytes.Clone(one)) || sameSeal(one, two) || sameSeal(one, one[:4]) || sameSeal(nil, nil) {
		t.Error("sameSeal is wrong")
	}
}

// TestStoreKey: a key in the store fits its alphabet, tells nothing, and does
// not depend on Config.Keys.
func TestStoreKey(t *testing.T) {
	secret := bytes.Repeat([]byte{0xff}, 32)
	key := storeKey("s", secret)
	if len(key) > 128 || strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		t.Errorf("key %q", key)
	}
	if strings.Contains(key, encode(secret)[:8]) {
		t.Errorf("key %q holds the secret", key)
	}
	if storeKey("s", secret) != key || storeKey("c", secret)[2:] == key[2:] || storeKey("s", secret[1:]) == key {
		t.Error("keys of different kinds or secrets are related")
	}
}

// TestDecode: one value has one spelling.
func TestDecode(t *testing.T) {
	for _, b := range [][]byte{nil, {0}, {1, 2}, {1, 2, 3}, bytes.Repeat([]byte{0xfb}, 33)} {
		if got, err := decode(encode(b)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("decode(encode(%x)) = %x %v", b, got, err)
		}
	}
	for _, s := range []string{"A", "AB", "AA==", "AA\n", "\rAA", "A A", "A+8", "A/8", "AA.", "é"} {
		if got, err := decode(s); err == nil {
			t.Errorf("decode(%q) = %x, want an error", s, got)
		}
	}
}
