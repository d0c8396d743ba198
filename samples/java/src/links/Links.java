package links;

import java.net.URI;
import java.net.URISyntaxException;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The short links of this instance, at most {@link #LIMIT} of them; the oldest goes first. Knows nothing of HTTP. */
final class Links {
    static final int LIMIT = 10_000;
    private static final int LONGEST = 2048;
    private static final int CODE_LENGTH = 6;
    private static final String LETTERS = "abcdefghijkmnpqrstuvwxyz23456789";

    /** A short link and how often it was followed. */
    record Link(String code, String url, long visits) {
        Link visited() {
            return new Link(code, url, visits + 1);
        }
    }

    /** A URL that cannot be shortened; the message is for the person who sent it. */
    static final class Refused extends Exception {
        private static final long serialVersionUID = 1L;

        Refused(String message) {
            super(message);
        }
    }

    private final Map<String, Link> byCode = new LinkedHashMap<>();
    private final SecureRandom random = new SecureRandom();

    /** Makes a short link for a URL. */
    synchronized Link shorten(String text) throws Refused {
        String url = check(text.strip());
        String code;
        do {
            code = newCode();
        } while (byCode.containsKey(code));
        if (byCode.size() >= LIMIT) {
            byCode.remove(byCode.keySet().iterator().next());
        }
        Link link = new Link(code, url, 0);
        byCode.put(code, link);
        return link;
    }

    /** Follows a short link and counts the visit. */
    synchronized Optional<Link> visit(String code) {
        return Optional.ofNullable(byCode.computeIfPresent(code, (key, link) -> link.visited()));
    }

    /** All links, newest first. */
    synchronized List<Link> list() {
        List<Link> all = new ArrayList<>(byCode.values());
        java.util.Collections.reverse(all);
        return all;
    }

    private String newCode() {
        StringBuilder code = new StringBuilder(CODE_LENGTH);
        for (int i = 0; i < CODE_LENGTH; i++) {
            code.append(LETTERS.charAt(random.nextInt(LETTERS.length())));
        }
        return code.toString();
    }

    private static String check(String url) throws Refused {
        if (url.isEmpty() || url.length() > LONGEST) {
            throw new Refused("send a URL of 1 to " + LONGEST + " characters as the body");
        }
        try {
            URI uri = new URI(url);
            boolean web = "http".equalsIgnoreCase(uri.getScheme()) || "https".equalsIgnoreCase(uri.getScheme());
            if (!web || uri.getHost() == null) {
                throw new Refused("the URL must begin with http:// or https:// and name a host");
            }
            return uri.toASCIIString();
        } catch (URISyntaxException e) {
            throw new Refused("not a URL: " + e.getReason());
        }
    }
}
