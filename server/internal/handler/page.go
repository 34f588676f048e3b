package handler

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// page requests one row more than wanted, which tells whether there is a next page.
func page[K any](limit *int, after *K) (wanted int, request db.Page[K]) {
	wanted = types.DefaultLimit
	if limit != nil {
		wanted = *limit
	}
	return wanted, db.Page[K]{Limit: wanted + 1, After: after}
}

// cut removes the extra row of page and returns the Link header to the next page
// (RFC 8288), or nil if there is none.
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
