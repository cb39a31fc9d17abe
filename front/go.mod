module github.com/seed454743b5/signin/front

go 1.26.0

require (
	github.com/seed454743b5/signin v0.0.0
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)
