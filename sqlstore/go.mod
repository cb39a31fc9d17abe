module github.com/seed454743b5/signin/sqlstore

go 1.26.0
