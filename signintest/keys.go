package signintest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
)

// key returns the newest key for an algorithm and makes the first one.
func (i *Issuer) key(alg string) (Key, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := len(i.keys) - 1; n >= 0; n-- {
		if i.keys[n].Alg == alg {
			return i.keys[n], nil
		}
	}
	k, err := i.borrow(alg)
	if err == nil {
		i.keys = append(i.keys, k)
	}
	return k, err
}

// borrow takes a key from the pool until the issuer ends. The caller holds mu.
func (i *Issuer) borrow(alg string) (Key, error) {
	private, err := keyPool.get(alg)
	if err != nil {
		return Key{}, err
	}
	k := Key{ID: fmt.Sprintf("key-%d-%s", len(i.borrowed)+1, rand.Text()[:6]), Alg: alg, Private: private}
	i.borrowed = append(i.borrowed, k)
	return k, nil
}

// Key returns the key that signs ID tokens now, and publishes one if there is
// none yet. It fails the test if [Behaviour.Alg] is unknown.
func (i *Issuer) Key() Key {
	i.tb.Helper()
	k, err := i.key(i.behaviour.Load().alg())
	if err != nil {
		i.tb.Fatalf("signintest: making a key: %v", err)
	}
	return k
}

// RotateKey publishes a new key beside those already published, signs with it
// from now on, and returns it. To drop the old ones see [Issuer.RetireKeys].
func (i *Issuer) RotateKey() Key {
	i.tb.Helper()
	k := i.ForeignKey(i.behaviour.Load().alg())
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, k)
	return k
}

// RetireKeys publishes nothing but the newest key.
func (i *Issuer) RetireKeys() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[max(0, len(i.keys)-1):]
}

// ForeignKey returns a key the issuer never publishes, for tokens signed by
// somebody else. It fails the test if the algorithm is unknown.
func (i *Issuer) ForeignKey(alg string) Key {
	i.tb.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	k, err := i.borrow(alg)
	if err != nil {
		i.tb.Fatalf("signintest: making a key: %v", err)
	}
	return k
}

// JWK returns the public half as a JSON Web Key, as the issuer publishes it.
func (k Key) JWK() map[string]any {
	encode := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"use": "sig", "kid": k.ID, "alg": k.Alg}
	switch p := k.Private.Public().(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", encode(p.N.Bytes()), encode(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := p.Bytes() // 4, X, Y
		if err != nil {
			panic("signintest: encoding a key: " + err.Error())
		}
		half := (len(point) - 1) / 2
		jwk["kty"], jwk["crv"] = "EC", p.Params().Name
		jwk["x"], jwk["y"] = encode(point[1:1+half]), encode(point[1+half:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", encode(p)
	}
	return jwk
}

// keyPool lends keys to issuers. Making an RSA key takes a good part of a
// second under the race detector; two issuers alive at once never share one.
var keyPool = pool{free: map[string][]crypto.Signer{}}

type pool struct {
	mu   sync.Mutex
	free map[string][]crypto.Signer // by family
}

func family(alg string) string {
	if strings.HasPrefix(alg, "PS") || strings.HasPrefix(alg, "RS") {
		return "RSA"
	}
	return alg
}

func (p *pool) get(alg string) (crypto.Signer, error) {
	f := family(alg)
	p.mu.Lock()
	if free := p.free[f]; len(free) > 0 {
		key := free[len(free)-1]
		p.free[f] = free[:len(free)-1]
		p.mu.Unlock()
		return key, nil
	}
	p.mu.Unlock()
	switch f {
	case "RSA":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("signintest: unknown algorithm %q", alg)
}

func (p *pool) put(keys []Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		p.free[family(k.Alg)] = append(p.free[family(k.Alg)], k.Private)
	}
}

// published are the keys of the key set.
func (i *Issuer) published() []Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.keys)
}

// ownKey is the key of a client with [Client].OwnKey.
func (i *Issuer) ownKey(clientID, alg string) (Key, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if k, ok := i.own[clientID]; ok && k.Alg == alg {
		return k, nil
	}
	k, err := i.borrow(alg)
	if err == nil {
		i.own[clientID] = k
	}
	return k, err
}

// appKeyClient is the client whose own key a request asks for by appid.
func (x *exchange) appKeyClient() (Client, bool) {
	client, ok := x.b.client(x.r.URL.Query().Get("appid"))
	return client, ok && x.b.Entra && client.OwnKey
}
