"""Writes src/sobol_directions.ts: Joe and Kuo's direction numbers (set new-joe-kuo-6) as scipy ships them.

    python3 scripts/make_sobol_directions.py        # needs scipy (tried with 1.17.1)
"""
import os

import numpy as np
import scipy

DIMENSIONS = 512
WIDTH = 118

numbers = np.load(os.path.join(os.path.dirname(scipy.__file__), "stats", "_sobol_direction_numbers.npz"))
words = []
for polynomial, initial in zip(numbers["poly"][1:DIMENSIONS], numbers["vinit"][1:DIMENSIONS]):
    degree = int(polynomial).bit_length() - 1
    words.append(",".join(str(int(n)) for n in [polynomial, *initial[:degree]]))
lines, line = [], ""
for word in words:
    if len(line) + 1 + len(word) > WIDTH:
        lines.append(line)
        line = word
    else:
        line = f"{line} {word}".strip()
lines.append(line)

HEADER = '''/**
 * Direction numbers of Sobol sequences: S. Joe and F. Y. Kuo, "Constructing Sobol sequences with better two-dimensional
 * projections", SIAM J. Sci. Comput. 30 (2008), their set new-joe-kuo-6, first %d of 21,201 dimensions. Written by
 * scripts/make_sobol_directions.py.
 *
 * Copyright (c) 2008, Frances Y. Kuo and Stephen Joe. All rights reserved.
 *
 * Redistribution and use in source and binary forms, with or without modification, are permitted provided that the following
 * conditions are met:
 *
 * - Redistributions of source code must retain the above copyright notice, this list of conditions and the following disclaimer.
 * - Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following disclaimer
 *   in the documentation and/or other materials provided with the distribution.
 * - Neither the names of the copyright holders nor the names of the University of New South Wales and the University of Waikato and
 *   its contributors may be used to endorse or promote products derived from this software without specific prior written permission.
 *
 * THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO,
 * THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT
 * HOLDERS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED
 * TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON
 * ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT
 * OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
 */

/** Dimensions in the table, the first of which needs no numbers. */
export const SOBOL_DIMENSIONS = %d;

/**
 * Dimensions 2 and up, one word each: the primitive polynomial over GF(2) of degree s as a number whose bit k is the coefficient of
 * x^k, then m_1 … m_s.
 */
export const DIRECTION_NUMBERS = `
'''
path = os.path.join(os.path.dirname(__file__), "..", "src", "sobol_directions.ts")
with open(path, "w") as file:
    file.write(HEADER % (DIMENSIONS, DIMENSIONS) + "\n".join(lines) + "\n`;\n")
