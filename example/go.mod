module github.com/seed454743b5/signin/example

go 1.26.0

require (
	github.com/coreos/go-oidc/v3 v3.21.0
	github.com/go-chi/chi/v5 v5.5.0
	github.com/go-jose/go-jose/v4 v4.1.9
	github.com/luikyv/go-oidc v0.23.0
	github.com/seed454743b5/signin v0.0.0
	github.com/seed454743b5/signin/redisstore v0.0.0
	golang.org/x/net v0.62.0
	golang.org/x/oauth2 v0.37.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/gorilla/securecookie v1.1.2 // indirect
	github.com/gorilla/sessions v1.4.0 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace (
	github.com/seed454743b5/signin => ../
	github.com/seed454743b5/signin/redisstore => ../redisstore
)
