package handler

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// page asks the database for one row more than wanted: whether it comes tells
// whether there is a next page.
func page[K any](limit *int, after *K) (wanted int, request db.Page[K]) {
	wanted = types.DefaultLimit
	if limit != nil {
		wanted = *limit
	}
	return wanted, db.Page[K]{Limit: wanted + 1, After: after}
}

// cut drops the row too many and returns the Link header that leads to it
// (RFC 8288); nil where there is none.
func cut[T any](rows []T, wanted int, path string, key func(T) string) ([]T, *string) {
	if len(rows) <= wanted {
		return rows, nil
	}
	rows = rows[:wanted]
	query := url.Values{
		"limit": {strconv.Itoa(wanted)},
		"after": {key(rows[wanted-1])},
	}
	link := fmt.Sprintf(`<%s?%s>; rel="next"`, path, query.Encode())
	return rows, &link
}
