// Package seal encrypts what leaves the process: cookies, the state parameter,
// records. It is a wall: a configured key goes in by [New], and its bytes
// never come out.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// A sealed value is
//
//	version (1) | key id (4) | salt (16) | AES-256-GCM ciphertext and tag
//
// The AES key and nonce are derived from a configured key, an optional second
// secret that we do not hold (the cookie's), the salt and the purpose. As the
// salt is new each time, no key and nonce meet twice.
const (
	sealVersion = 1
	keyIDLen    = 4
	saltLen     = 16
	sealHeader  = 1 + keyIDLen + saltLen
)

// ErrUnsealed says that a value is not one that we sealed for this purpose and
// this place. It does not say why.
var ErrUnsealed = errors.New("does not open under our keys")

// Keyring holds the keys derived from Config.Keys. The first seals, all open.
type Keyring []Key

// Key is one configured key, as the secrets derived from it. The secret sits
// behind a function value, so that a dump by reflection, which calls no
// methods, shows an address.
type Key struct {
	id     [keyIDLen]byte
	secret func() []byte
}

// New derives a Keyring. Each of keys is 32 random bytes.
func New(keys [][]byte) Keyring {
	ring := make(Keyring, len(keys))
	for i, k := range keys {
		secret := derive(k, nil, "root", 32)
		ring[i].secret = func() []byte { return secret }
		copy(ring[i].id[:], derive(k, nil, "id", keyIDLen))
	}
	return ring
}

// Name is where a value stands in the store under this key, for who knows what
// it is called. Nobody else can tell whose it is.
func (k Key) Name(kind, value string) string {
	return kind + "." + Encode(MAC(derive(k.secret(), nil, "index "+kind, 32), []byte(value))[:24])
}

// Subkey is n bytes for one purpose outside this package, made of the key.
func (k Key) Subkey(salt []byte, info string, n int) []byte {
	return derive(k.secret(), salt, info, n)
}

// Seal encrypts plain for one purpose. Only who has bind too can open it, and
// only beside the same aad.
func (ring Keyring) Seal(purpose string, bind, aad, plain []byte) []byte {
	k := ring[0]
	out := make([]byte, sealHeader, sealHeader+len(plain)+16)
	out[0] = sealVersion
	copy(out[1:], k.id[:])
	rand.Read(out[1+keyIDLen:])
	gcm, nonce := k.cipher(purpose, bind, out[1+keyIDLen:sealHeader])
	return gcm.Seal(out, nonce, plain, aad)
}

// Open reverses seal. The error says nothing about why.
func (ring Keyring) Open(purpose string, bind, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < sealHeader || sealed[0] != sealVersion {
		return nil, ErrUnsealed
	}
	for _, k := range ring {
		if [keyIDLen]byte(sealed[1:]) != k.id {
			continue
		}
		gcm, nonce := k.cipher(purpose, bind, sealed[1+keyIDLen:sealHeader])
		if plain, err := gcm.Open(nil, nonce, sealed[sealHeader:], aad); err == nil {
			return plain, nil
		} // two keys may have one id
	}
	return nil, ErrUnsealed
}

func (k Key) cipher(purpose string, bind, salt []byte) (cipher.AEAD, []byte) {
	secret := slices.Concat(k.secret(), bind)
	material := derive(secret, salt, purpose, 32+12)
	block, err := aes.NewCipher(material[:32])
	if err != nil {
		panic(err) // 32 bytes are an AES-256 key
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has 16-byte blocks
	}
	return gcm, material[32:]
}

// Same reports whether two sealed values came from one call of seal. It
// compares the header, whose salt is never used twice.
func Same(a, b []byte) bool {
	if len(a) != len(b) || len(a) < sealHeader {
		return false
	}
	// A store in this process returns the very same bytes: they need not come
	// out of main memory to be compared with themselves.
	return &a[0] == &b[0] || [sealHeader]byte(a) == [sealHeader]byte(b)
}

// derive is HKDF with SHA-256 (RFC 5869).
func derive(secret, salt []byte, info string, n int) []byte {
	out, err := hkdf.Key(sha256.New, secret, salt, "signin "+info, n)
	if err != nil {
		panic(err) // only for n over 8160
	}
	return out
}

// StoreKey names a value in the store after a secret, so that the name tells
// nothing. It does not depend on Config.Keys.
func StoreKey(kind string, secret []byte) string {
	return kind + "." + Encode(derive(secret, nil, "store key "+kind, 24))
}

// MAC is HMAC with SHA-256 over the parts, one after another.
func MAC(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// Random returns n random bytes.
func Random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// Encode is base64url without padding.
func Encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Decode takes what encode returned and nothing else: encoding/base64 alone
// would skip line breaks.
func Decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(strings.IndexAny(s, "\r\n"))
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}
