package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/seed454743b5/signin/sqlstore"
)

// The program imports a driver, here _ "github.com/jackc/pgx/v5/stdlib".
func ExampleNew() {
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)

	store, err := sqlstore.New(db, sqlstore.PostgreSQL, sqlstore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := store.Create(ctx); err != nil {
		log.Fatal(err)
	}
	// config := signin.Config{Store: store, ...}
}

func ExampleSchema() {
	schema, err := sqlstore.Schema(sqlstore.PostgreSQL, "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(schema)
	// Output:
	// CREATE TABLE IF NOT EXISTS signin_store (
	//   id bytea PRIMARY KEY,
	//   value bytea NOT NULL,
	//   expires bigint NOT NULL
	// );
	// CREATE INDEX IF NOT EXISTS signin_store_expires ON signin_store (expires);
}
