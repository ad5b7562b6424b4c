package main

// Endpoints that the real server has and the stand-in does not play. Each answers with the status that
// was seen of a server without internet (501: never asked), so that a gateway which lets one through
// is seen. What they say was not written down.

import "net/http"

func absentRoutes() routes {
	table := routes{}
	for _, absent := range []struct {
		method, path string
		status       int
	}{
		{http.MethodPost, "/api/push", http.StatusInternalServerError},
		{http.MethodPost, "/api/me", http.StatusOK},
		{http.MethodPost, "/api/signout", http.StatusNotImplemented},
		{http.MethodDelete, "/api/user/keys/", http.StatusNotImplemented},
		{http.MethodGet, "/api/status", http.StatusOK},
		{http.MethodPost, "/api/experimental/web_search", http.StatusServiceUnavailable},
		{http.MethodPost, "/api/experimental/web_fetch", http.StatusServiceUnavailable},
		{http.MethodGet, "/api/experimental/model-recommendations", http.StatusForbidden},
		{http.MethodPost, "/v1/audio/transcriptions", http.StatusBadRequest},
	} {
		status := absent.status
		table[absent.path] = map[string]http.HandlerFunc{absent.method: func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusOK {
				writeJSON(w, status, map[string]any{})
				return
			}
			fail(w, r, status, r.URL.Path+" is not in the lab's stand-in")
		}}
	}
	return table
}
