module github.com/seed454743b5/signin/internal/linear

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/redis/rueidis v1.0.79
	github.com/seed454743b5/signin v0.0.0
	github.com/seed454743b5/signin/filestore v0.0.0
	github.com/seed454743b5/signin/redisstore v0.0.0
	github.com/seed454743b5/signin/sqlstore v0.0.0
	modernc.org/sqlite v1.62.0
)
