module github.com/seed454743b5/signin/redisstore

go 1.26.0

require (
	github.com/redis/rueidis v1.0.79
	github.com/seed454743b5/signin v0.0.0
)

require (
	github.com/coreos/go-oidc/v3 v3.21.0 // indirect
	github.com/go-jose/go-jose/v4 v4.1.9 // indirect
	github.com/gorilla/securecookie v1.1.2 // indirect
	github.com/gorilla/sessions v1.4.0 // indirect
	golang.org/x/oauth2 v0.37.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/seed454743b5/signin => ../
